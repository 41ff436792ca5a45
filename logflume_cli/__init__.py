"""The command line `logflume`: each command is put together here and may import every room."""
