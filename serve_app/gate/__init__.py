"""The gate: what every request passes before it costs a replica anything.

It reads the whole body, within limits on size, time and pace, checks host, key and rate, then hands
the request to a replica, and to another one when that dies. It stands in Ray Serve's proxy, or
around the web application where the proxy was started without it.
"""
