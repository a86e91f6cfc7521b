"""benchmarks/gpu.py, rehearsed on the processor: what a GPU is lent for has run before."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"

WITHOUT = """
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "kaggle", "kagglesdk"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_stage_leaves_its_result(tmp_path, backend):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    if backend == "jax":
        # A GPU machine may have neither TensorFlow nor Kaggle's client.
        (tmp_path / "sitecustomize.py").write_text(WITHOUT)
        environment["PYTHONPATH"] = str(tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--rehearse", "--out", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {
        name: json.loads((out / f"{name}.json").read_text()) for name in ("train", "predict", "throughput")
    }
    assert results["train"]["figures"]["frames"] == 32
    assert set(results["train"]["folds"]) == {"fold-0", "fold-1"}
    assert (out / "fold-1-history.csv").read_text().startswith("epoch,")
    rows = lzma.decompress((out / "submission.csv.xz").read_bytes()).decode().splitlines()
    assert (rows[0], len(rows)) == ("img,pixels", 5)
    assert (results["predict"]["models"], results["predict"]["frames"]) == (2, 4)
    default = results["throughput"]["default"]
    assert min(default["bare_ms"], default["fed_ms"], default["predict_ms_a_frame"]) > 0
