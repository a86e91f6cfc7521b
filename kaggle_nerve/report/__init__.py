"""Report a run as one self-contained HTML page: `gather` reads, `drawings` and `galleries` draw, `page`
writes."""
