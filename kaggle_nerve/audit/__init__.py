"""Labels to doubt: near-identical frames, contradictions, suspicious masks; the tables and sheets of them."""
