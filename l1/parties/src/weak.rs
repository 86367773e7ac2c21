//! Remedies that the simulator takes away from the machines, to show that it notices. Without the feature `simulate` there is nothing to
//! take away with: the types have no fields, and every question is answered with a constant `false`.

/// Declares a machine's switches: a type with a field and a question of the same name for each.
macro_rules! switches {
    ($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $switch:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct $name {
            $($(#[$what])* #[cfg(feature = "simulate")] pub(crate) $switch: bool,)*
        }

        impl $name {
            $(
                $(#[$what])*
                #[cfg(feature = "simulate")]
                pub(crate) const fn $switch(self) -> bool {
                    self.$switch
                }

                #[cfg(not(feature = "simulate"))]
                pub(crate) const fn $switch(self) -> bool {
                    false
                }
            )*
        }
    };
}
