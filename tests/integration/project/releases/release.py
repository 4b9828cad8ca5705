"""Which release this process is, and what else the test has asked for."""

import os

NUMBER = int(os.environ["SHOP_RELEASE"])
NEW = NUMBER > 1

#: The release writes the next wire version, as a release of the library does.
NEXT_WIRE = "SHOP_NEXT_WIRE" in os.environ
#: It has a carrier for the tenant.
TENANTS = "SHOP_TENANTS" in os.environ
#: It has the receivers and models that the specimens of the wire name.
SPECIMENS = "SHOP_SPECIMENS" in os.environ
