"""The engine: admission, execution, compensation, takeover and sweep, over ports.

It is asynchronous and knows no driver; everything that touches the world is one of `ports`.
"""
