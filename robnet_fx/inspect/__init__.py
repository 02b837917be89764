"""Looking inside: the graphs on the way from a network to its bounds, how wide the bounds are, and where they grow."""

from robnet_fx.inspect.errors import NodeErrors, Shares
from robnet_fx.inspect.origin import CodeLine, code_lines, generated_nodes
from robnet_fx.inspect.stages import STAGES, NodeLine, node_lines, operation_name, shape_text, stage_graph, stage_of
from robnet_fx.inspect.survey import NodeWidths, Survey, survey

__all__ = [
    "STAGES",
    "CodeLine",
    "NodeErrors",
    "NodeLine",
    "NodeWidths",
    "Shares",
    "Survey",
    "code_lines",
    "generated_nodes",
    "node_lines",
    "operation_name",
    "shape_text",
    "stage_graph",
    "stage_of",
    "survey",
]
