//! The Compute API (Nova), as far as attaching volumes needs it.
