"""For tests of services and clients: servers for the length of a test, and a relay that misbehaves.

Nothing here is imported by the rest of streamkit.
"""

from streamkit.testing.expecting import expect
from streamkit.testing.faults import Fault, FaultProxy
from streamkit.testing.in_process import InProcess
from streamkit.testing.roles import Access
from streamkit.testing.servers import connected, serve

__all__ = ["Access", "Fault", "FaultProxy", "InProcess", "connected", "expect", "serve"]
