"""`logflume reconcile`: compares the database with the archive and the workflows."""
