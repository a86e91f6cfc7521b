"""The probability map: its levels, its way to full size, several maps become one, an ensemble's brought to scale."""
