//! Names interned to small numbers, so that the data path compares and indexes instead of hashing text. A slot belongs
//! to one name for the life of the process; `table::Slots` gives them out and says where in a table each is.

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The slot as an index.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

slot!(
    /// An upstream: one provider account or deployment that requests can be sent to.
    UpstreamSlot
);
slot!(
    /// A credential of an upstream; an upstream that wants none has a slot for that.
    CredentialSlot
);
slot!(
    /// A team.
    TeamSlot
);
slot!(
    /// A caller: one `[[key]]`, whichever of its secrets was presented.
    CallerSlot
);
slot!(
    /// A `[[model]]` rule.
    ModelSlot
);
