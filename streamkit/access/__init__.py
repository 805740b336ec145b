"""Who may do what: identities, roles that only allow, and one decision.

Pure at the core (`roles`, `containment`, `rules`): identity, action and resource in, yes or no out.
"""

from __future__ import annotations
