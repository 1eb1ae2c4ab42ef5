//! table

pub mod live;
