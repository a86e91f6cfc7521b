"""Rehearse against a loopback Kaggle: a server on 127.0.0.1 that the unmodified official client can talk to.

``server.RehearsalServer`` starts it, ``competitions.served.pack`` makes what it serves, ``faults`` lists the
faults that can be injected. The texts of error messages are this project's own: only their shape and status
codes are Kaggle's.
"""
