"""What the comparison of a mapping with live catalogs has found so far.

Sentences with their places: ``config/entities.toml: account.fields.note: …``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Comparison:
    """Gathers findings. ``missing_collections`` is by store."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing_rights: list[str] = field(default_factory=list)
    missing_collections: dict[str, list[str]] = field(default_factory=dict)
