//! The Block Storage API (Cinder).
