"""The loopback Kaggle: a server on 127.0.0.1 that the official client, unmodified, completes against.

``server.RehearsalServer`` starts it, ``competition.pack`` makes what it serves, ``faults`` lists what can go
wrong on request. The texts of error messages are this project's own: only their shape and status codes are
Kaggle's.
"""
