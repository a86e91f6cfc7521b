"""Find doubtful labels: near-identical frames, contradictions, suspicious masks; write tables and contact sheets."""
