"""The command `logflume`: builds each process from the other packages; nothing imports it."""
