"""What the console asks besides lists."""
