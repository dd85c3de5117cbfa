"""What the paper says in numbers, for measurements and figures to be held against."""

# Figure 3's caption, of lines in z: from, to, and the digit between.
DIGITS_BETWEEN = ((8, 2, 3), (5, 2, 3), (7, 4, 9))
