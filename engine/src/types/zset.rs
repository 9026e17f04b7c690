//! Placeholder.
#[derive(Clone, Debug, Default)]
pub struct ZSet;
impl ZSet {
    pub fn new() -> Self { ZSet }
    pub fn encoding(&self) -> &'static str { "" }
    pub fn len(&self) -> usize { 0 }
    pub fn memory_usage(&self) -> usize { 0 }
}
#[derive(Clone, Debug)]
pub struct LexBound; 
#[derive(Clone, Debug)]
pub struct ScoreBound;
