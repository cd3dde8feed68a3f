"""The runtime of Rheobase. What a program that makes a graph needs is here by name; `run` is in `run.py`:

from rheobase.stream import Graph
from rheobase.stream.run import run
"""

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import collect
from rheobase.stream.graph import Graph, read
from rheobase.stream.node import Kernel, Node, Sink, Source, kernel

__all__ = ["Block", "Graph", "Kernel", "Node", "Sink", "Source", "Spec", "StreamError", "collect", "kernel", "read"]
