"""Files that an import may be given, and the import of one into an empty cache."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from exchange_study import fasta

from embedcache.exchange.claim import Claim
from embedcache.exchange.importing import import_embeddings

SEQUENCES = {"a": "MKVLAAG", "b": "MKV"}
GOOD = {
    name: np.random.default_rng(i).standard_normal((len(s), 64)).astype("f4")
    for i, (name, s) in enumerate(SEQUENCES.items())
}


def import_file(name: Any, path: Path, tmp_path: Path, **options: Any) -> None:
    claim = Claim(encoder=options.pop("encoder", "tiny-random-protein"), **options.pop("claim", {}))
    sequences = fasta(tmp_path / "x.fa", options.pop("sequences", SEQUENCES))
    import_embeddings(
        format=name, modality="protein", claim=claim, input=path, cache=tmp_path / "cache", fasta=sequences, **options
    )


def hdf5(path: Path, content: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values
    return path
