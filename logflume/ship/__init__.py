"""The shipper: sends the output of a command as parts of a log, from any machine.

One process reads the command's output and appends it to a spool on disk (`spool.py`); a second one
sends what is in the spool (`sender.py`), so that the network never delays the command. Imports only
the standard library, until a part is sent over AMQP.
"""
