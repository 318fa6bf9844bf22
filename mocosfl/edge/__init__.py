"""Training over a network: a server with real clients. Files here import as little as they can.

What runs on a device must start without torch: `wire`, `session`, `frozen_head`, `pillow_views`,
`own_images` and `client` import it nowhere at their top.
"""
