"""Aggregators: from the tokens of the present modalities to one vector a sample. One file a family."""

from heads.aggregators.protocol import Aggregator, build_aggregator, what_it_reads

__all__ = ["Aggregator", "build_aggregator", "what_it_reads"]
