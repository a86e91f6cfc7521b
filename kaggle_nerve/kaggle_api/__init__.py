"""Talk to Kaggle. The official client runs here and nowhere else.

``client.Client`` runs the client, ``fetch.fetch`` gets the data, ``kernels``, ``outputs`` and ``datasets``
work with Kaggle notebooks and datasets. ``guard`` is the child process that imports kaggle, ``process`` talks to
it, and ``failures`` and ``subjects`` turn its errors into sentences for the user. All work the same against the
real Kaggle and against the rehearsal.
"""
