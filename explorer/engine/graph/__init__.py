"""What a traced network is: its calls as a graph, rectifiers marked as sites, everything else put to the test."""

from explorer.engine.graph.network import Kind, Network, ReportRow, Site, Unsupported, state_fingerprint

__all__ = ["Kind", "Network", "ReportRow", "Site", "Unsupported", "state_fingerprint"]
