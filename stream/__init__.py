"""The runtime of Rheobase. What most programs need is here by name:

from rheobase.stream import Graph, run
"""

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import collect
from rheobase.stream.graph import Graph, read
from rheobase.stream.node import Kernel, Node, Sink, Source, kernel
from rheobase.stream.run import run

__all__ = [
    "Block",
    "Graph",
    "Kernel",
    "Node",
    "Sink",
    "Source",
    "Spec",
    "StreamError",
    "collect",
    "kernel",
    "read",
    "run",
]
