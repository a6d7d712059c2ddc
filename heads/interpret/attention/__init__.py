"""Where the heads of an encoder look, region by region, and what one modality reads of another."""
