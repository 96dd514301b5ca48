//! What may be asked of each daemon.
//!
//! Each file declares the requests to one daemon with `requests!`: for each the type that a client calls with
//! ([`Call`]), the type of its reply, and its [`Terms`].

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::ClientError;
use crate::hello::Role;

/// Declares the requests of an API, each with all that belongs to it.
///
/// ```text
/// requests! {
///     /// A request to `keyd`.
///     KeydApi => Reply, by Meshd;                // the API, the enum of its replies, and the role that asks
///
///     Query {                                    // the requests of one `RequestKind`
///         /// What `tund` verifies by, for a network.
///         TrustAnchor as GetTrustAnchor(network: NetworkId) -> TrustAnchor {
///             Reply::TrustAnchor(anchor) => *anchor
///         } by Tund;
///     }
/// }
/// ```
///
/// A request begins as its variant of the enum `Request`, which is what is encoded: alone, with unnamed values that
/// have a name only here, or with named ones. Its type is declared with the same values, and is called like the variant
/// or as `as` says. After `for` stands a type that there is already, and that is the variant's value.
///
/// After the arrow follow the type of the reply and how it is taken from the enum of replies. What differs from the rule
/// stands behind it, in this order: `by` another role; `passes` a number of descriptors with the request; `returns`
/// descriptors with the reply, which are taken from the list of this name; `within` a number of seconds in place of
/// [`DEADLINE`].
///
/// After the role, `sorted` has the enum `Sorted` made too, which holds an enum for each kind.
macro_rules! requests {
    (
        $(#[$doc:meta])*
        $api:ident => $replies:ident, by $role:ident $(, $sorted:ident)?;
        $($kind:ident { $(
            $(#[$call_doc:meta])*
            $variant:ident $(as $call:ident)? $(for $known:ident)?
            $(($($arg:ident: $arg_type:ty),+))?
            $({ $($(#[$field_doc:meta])* $field:ident: $field_type:ty),+ $(,)? })?
            -> $reply:ty { $($pattern:pat => $value:expr),+ $(,)? }
            $(by $by:ident)? $(passes $passes:literal)? $(returns $fds:ident)? $(within $seconds:expr)?;
        )+ })+
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
        pub enum Request { $($(
            $(#[$call_doc])*
            $variant $(($($arg_type),+))? $({ $($(#[$field_doc])* $field: $field_type),+ })?,
        )+)+ }

        impl Request {
            /// What belongs to it.
            #[must_use]
            pub fn terms(&self) -> $crate::api::Terms {
                match self { $($(
                    Self::$variant { .. } => $crate::api::Terms {
                        kind: $crate::api::RequestKind::$kind,
                        role: [$($crate::Role::$by,)? $crate::Role::$role][0],
                        fds: [$($passes,)? 0][0],
                        deadline: std::time::Duration::from_secs([$($seconds,)? $crate::api::DEADLINE][0]),
                    },
                )+)+ }
            }
        }

        impl $crate::api::Call for Request {
            type Api = $api;
            type Reply = $replies;

            fn read(reply: $replies, fds: &mut Vec<std::os::fd::OwnedFd>) -> Option<$replies> {
                fds.clear();
                Some(reply)
            }
        }

        $($(requests! {
            @call $api $replies [$variant $(as $call)? $(for $known)?] [$(#[$call_doc])*]
            [$(($($arg: $arg_type),+))? $({ $($(#[$field_doc])* $field: $field_type),+ })?]
            $reply { $($pattern => $value),+ } [$($fds)?]
        })+)+

        requests! {
            @sort [$($sorted)?] $($kind { $(
                [$(#[$call_doc])*] $variant $(($($arg: $arg_type),+))?
                $({ $($(#[$field_doc])* $field: $field_type),+ })?;
            )+ })+
        }
    };

    // The type of a request.
    (@call $api:ident $replies:ident [$variant:ident] $($rest:tt)*) => {
        requests!(@call $api $replies [$variant as $variant] $($rest)*);
    };
    (@call $api:ident $replies:ident [$variant:ident as $call:ident] $doc:tt [$($values:tt)*] $($rest:tt)*) => {
        requests!(@type $doc $call $($values)*);
        requests!(@from $variant $call $($values)*);
        requests!(@reply $api $replies $call $($rest)*);
    };
    (@call $api:ident $replies:ident [$variant:ident for $call:ident] $doc:tt [($arg:ident: $type:ty)] $($rest:tt)*) => {
        impl From<$call> for Request {
            fn from($arg: $call) -> Self {
                Self::$variant($arg.into())
            }
        }
        requests!(@reply $api $replies $call $($rest)*);
    };
    (@type [$($doc:tt)*] $call:ident) => {
        $($doc)*
        #[derive(Debug, Clone)]
        pub struct $call;
    };
    (@type [$($doc:tt)*] $call:ident ($($arg:ident: $type:ty),+)) => {
        $($doc)*
        #[derive(Debug, Clone)]
        pub struct $call($(pub $type),+);
    };
    (@type [$($doc:tt)*] $call:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),+ }) => {
        $($doc)*
        #[derive(Debug, Clone)]
        pub struct $call { $($(#[$field_doc])* pub $field: $type),+ }
    };
    (@from $variant:ident $call:ident
        $(($($arg:ident: $arg_type:ty),+))? $({ $($(#[$doc:meta])* $field:ident: $type:ty),+ })?
    ) => {
        impl From<$call> for Request {
            fn from($call $(($($arg),+))? $({ $($field),+ })?: $call) -> Self {
                Self::$variant $(($($arg),+))? $({ $($field),+ })?
            }
        }
    };

    // How it is answered.
    (@reply $api:ident $replies:ident $call:ident $reply:ty { $($pattern:pat => $value:expr),+ } [$($fds:ident)?]) => {
        impl $crate::api::Call for $call {
            type Api = $api;
            type Reply = $reply;

            fn read(reply: $replies, _fds: &mut Vec<std::os::fd::OwnedFd>) -> Option<$reply> {
                $(let $fds = _fds;)?
                match reply {
                    $($pattern => Some($value),)+
                    _ => None,
                }
            }
        }
    };

    // Requests by their kind.
    (@sort [] $($rest:tt)*) => {};
    (@sort [sorted] $($kind:ident { $(
        [$($doc:tt)*] $variant:ident $(($($arg:ident: $arg_type:ty),+))?
        $({ $($(#[$field_doc:meta])* $field:ident: $type:ty),+ })?;
    )+ })+) => {
        /// A request, by its kind.
        #[derive(Debug, Clone)]
        pub enum Sorted { $(
            #[doc = concat!("One of the kind [`", stringify!($kind), "`](crate::api::RequestKind::", stringify!($kind), ").")]
            $kind($kind),
        )+ }

        $(
            #[doc = concat!("The requests of the kind [`", stringify!($kind), "`](crate::api::RequestKind::", stringify!($kind), ").")]
            #[derive(Debug, Clone)]
            pub enum $kind { $(
                $($doc)*
                $variant $(($($arg_type),+))? $({ $($(#[$field_doc])* $field: $type),+ })?,
            )+ }
        )+

        impl From<Request> for Sorted {
            fn from(request: Request) -> Self {
                match request { $($(
                    Request::$variant $(($($arg),+))? $({ $($field),+ })? =>
                        Self::$kind($kind::$variant $(($($arg),+))? $({ $($field),+ })?),
                )+)+ }
            }
        }
    };
}

pub mod keyd;
pub mod meshd;
pub mod order;
pub mod tund;
pub mod webd;

/// How long a daemon may take to answer, unless a request says otherwise; seconds.
const DEADLINE: u64 = 10;

/// One daemon's requests and replies.
pub trait Api: Send + Sync + 'static {
    /// What may be asked.
    type Request: Call<Api = Self, Reply = Self::Reply> + Serialize + DeserializeOwned + Send + Sync;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Send + Sync;
    /// The daemon.
    const DAEMON: Role;
    /// Largest request, bytes.
    const MAX_REQUEST: usize;
    /// Largest reply, bytes.
    const MAX_REPLY: usize;

    /// What belongs to a request.
    fn terms(request: &Self::Request) -> Terms;

    /// Whether a process with this role may ask this.
    fn allows(role: Role, request: &Self::Request) -> bool {
        Self::terms(request).role == role
    }
}

/// What belongs to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What it does.
    pub kind: RequestKind,
    /// Who may ask it.
    pub role: Role,
    /// How many file descriptors come with it.
    pub fds: usize,
    /// How long the daemon may take to answer.
    pub deadline: Duration,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// It changes nothing, and may be repeated.
    Query,
    /// It changes something.
    Command,
    /// A long poll: the answer may be long in coming because nothing happens. It is not waited for when the client has
    /// gone.
    Poll,
}

/// A request of which it is known how it is answered.
///
/// The enum of an API's requests is one too, and any reply answers it: for programs that pass requests on.
pub trait Call: Into<<<Self as Call>::Api as Api>::Request> {
    /// The API that it belongs to.
    type Api: Api;
    /// What it is answered with.
    type Reply;

    /// Takes its reply out of what the daemon has sent, and the descriptors that belong to it out of those that have
    /// come with that. None if it is the reply to another request.
    fn read(reply: <Self::Api as Api>::Reply, fds: &mut Vec<OwnedFd>) -> Option<Self::Reply>;

    /// Takes its reply out of what the daemon has sent, which has come with these descriptors.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] if it is the reply to another request, or has too few descriptors or too many.
    fn reply(reply: <Self::Api as Api>::Reply, mut fds: Vec<OwnedFd>) -> Result<Self::Reply, ClientError> {
        match Self::read(reply, &mut fds) {
            Some(reply) if fds.is_empty() => Ok(reply),
            _ => Err(ClientError::Unexpected { daemon: Self::Api::DAEMON }),
        }
    }
}

/// Takes the first descriptors of a list; none if it has fewer.
fn take<const N: usize>(fds: &mut Vec<OwnedFd>) -> Option<[OwnedFd; N]> {
    fds.get(..N)?;
    fds.drain(..N).collect::<Vec<_>>().try_into().ok()
}
