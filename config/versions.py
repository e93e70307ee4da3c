"""Which Istio versions are supported."""

OLDEST_MINOR = "1.17"
NEWEST_MINOR = "1.31"


def minor(version: str) -> tuple[int, int]:
    """`1.31.0` → (1, 31)."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def order(version: str) -> tuple[int, ...]:
    """A key to sort versions by: `1.31.0-rc.1` → (1, 31, 0)."""
    return tuple(int(part) for part in version.partition("-")[0].split("."))


def is_supported(version: str) -> bool:
    """Whether the values in `istio/values.py` are known to fit the charts of this version."""
    return minor(f"{OLDEST_MINOR}.0") <= minor(version) <= minor(f"{NEWEST_MINOR}.0")
