"""One tree, two releases of a project: ``SHOP_RELEASE`` says which of them a process is.

Release 2 has renamed, moved, added and removed what people rename, move, add and remove while messages are under way.
"""
