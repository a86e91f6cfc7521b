"""Everything between this machine and Kaggle. The official client runs here and nowhere else.

``client.Client`` runs it, ``fetch.fetch`` gets the data, ``submit.upload`` sends a submission, ``ledger.Ledger``
remembers what was sent. Each works the same against the real Kaggle and against the rehearsal.
"""
