"""What options choose from, apart from the code that these words choose. Imports nothing."""

from typing import Literal

__all__ = ["ComputeDtype", "Crop", "EngineName", "ExportDtype", "FormatName", "Names", "StoreDtype"]

ComputeDtype = Literal["float32", "bfloat16", "float16"]
StoreDtype = Literal["float16", "bfloat16", "float32", "int8"]
Crop = Literal["error", "keep-3-prime", "keep-5-prime", "center", "windows"]
EngineName = Literal["local", "ray", "slurm"]
FormatName = Literal["biotrainer", "bio-embeddings", "esm-pt", "h5ad", "parquet"]
ExportDtype = Literal["float32", "float16"]
Names = Literal["sequence", "id"]
