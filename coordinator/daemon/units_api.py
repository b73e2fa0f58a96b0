"""The units that ``/v1/units`` shows: the engine's port, under the daemon's name."""

from coordinator.engine.units_api import ActionRefused as ActionRefused
from coordinator.engine.units_api import UnitsApi as UnitsApi
from coordinator.engine.units_api import UnitUnknown as UnitUnknown
from coordinator.engine.units_api import UnitView as UnitView
