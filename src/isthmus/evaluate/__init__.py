"""Floor 3: tables in, numbers out; knows models only through a protocol."""
