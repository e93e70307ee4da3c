"""The path of a request, hop by hop: read from the live cluster and its proxies, explained, written down."""
