"""The tables of Wu et al. 2020 (arXiv 2007.03213) and what stands beside them: one resumable command a row."""
