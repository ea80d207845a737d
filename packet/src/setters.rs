//! How values of a struct that may grow are made outside its crate.

/// For each field a method that returns the value with the field set: a struct that is
/// `non_exhaustive` can't be written down elsewhere. For the crates of this project.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($type:ident { $($set:ident = $field:ident: $of:ty),+ $(,)? }) => {
        impl $type {
            $(
                #[doc = concat!(
                    "The same with this [`", stringify!($field), "`](field@", stringify!($type), "::",
                    stringify!($field), ")."
                )]
                #[inline]
                #[must_use]
                pub const fn $set(mut self, $field: $of) -> $type {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}
