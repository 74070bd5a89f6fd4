"""The endpoint that the bank calls: read, verify, publish, await the queue's confirmation, and only then answer OK."""
