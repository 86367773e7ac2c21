//! All implementations against the same rules.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

mod queue_in_memory {
    assay_queue::queue_contract!(super::common::memory_queue);
}

mod queue_in_a_folder {
    assay_queue::queue_contract!(super::common::folder_queue);
}

mod queue_over_redis {
    assay_queue::queue_contract!(super::common::redis_queue);
}

mod store_in_a_folder {
    assay_queue::store_contract!(super::common::folder_store);
}

mod store_over_redis_and_objects {
    assay_queue::store_contract!(super::common::shared_store);
}
