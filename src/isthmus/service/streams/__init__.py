"""Events from streams: taken in, kept aside, tried again."""
