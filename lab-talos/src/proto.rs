//! The Talos machine API on the wire: messages, clients and server traits.
//!
//! The modules here are generated from `proto/*.proto` and committed, so that building the crate needs no code
//! generator; `tests/proto.rs` compares them with what the generator makes of the definitions today.
#![allow(missing_docs, unreachable_pub, clippy::all)]

/// Shared by all services.
pub mod common {
    include!("proto/common.rs");
}
/// The machine service.
pub mod machine {
    include!("proto/machine.rs");
}
/// The storage service.
pub mod storage {
    include!("proto/storage.rs");
}
/// Errors inside replies.
pub mod google {
    pub mod rpc {
        include!("proto/google.rpc.rs");
    }
}
/// The resource API.
pub mod cosi {
    pub mod resource {
        include!("proto/cosi.resource.rs");
    }
}
/// The machine configuration as a resource.
pub mod resource {
    pub mod config {
        include!("proto/resource.config.rs");
    }
}
/// The specs of resources.
pub mod talos {
    pub mod resource {
        pub mod definitions {
            pub mod cluster {
                include!("proto/talos.resource.definitions.cluster.rs");
            }
            pub mod enums {
                include!("proto/talos.resource.definitions.enums.rs");
            }
            pub mod etcd {
                include!("proto/talos.resource.definitions.etcd.rs");
            }
            pub mod hardware {
                include!("proto/talos.resource.definitions.hardware.rs");
            }
            pub mod k8s {
                include!("proto/talos.resource.definitions.k8s.rs");
            }
            pub mod network {
                include!("proto/talos.resource.definitions.network.rs");
            }
            pub mod runtime {
                include!("proto/talos.resource.definitions.runtime.rs");
            }
            pub mod v1alpha1 {
                include!("proto/talos.resource.definitions.v1alpha1.rs");
            }
        }
    }
}
pub use talos::resource::definitions;
