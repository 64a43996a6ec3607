//! The tables as diesel sees them; a test compares them with what the migrations make.
#![expect(missing_docs, reason = "columns are documented in the migrations, once")]

diesel::table! {
    sessions (id) {
        id -> Uuid,
        org_id -> Uuid,
        user_id -> Uuid,
        username -> Text,
        name -> Text,
        template -> Text,
        application_id -> Nullable<Text>,
        agent_id -> Nullable<Uuid>,
        agent_handle -> Nullable<Text>,
        platform -> Text,
        region -> Nullable<Text>,
        state -> Text,
        state_reason -> Nullable<Text>,
        state_since -> Timestamptz,
        generation -> BigInt,
        cpu_millis -> BigInt,
        memory_bytes -> BigInt,
        storage_bytes -> BigInt,
        persistent_home -> Bool,
        idle_seconds -> Integer,
        max_seconds -> Integer,
        tags -> Array<Text>,
        streaming_ready -> Bool,
        streaming_port -> Nullable<Integer>,
        platform_metadata -> Jsonb,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        last_activity_at -> Nullable<Timestamptz>,
        hibernated_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        hidden_at -> Nullable<Timestamptz>,
        image -> Nullable<Text>,
        protocol -> Text,
        idle_source -> Text,
        max_source -> Text,
        extended_seconds -> Integer,
        kept_until -> Nullable<Timestamptz>,
        warned_at -> Nullable<Timestamptz>,
        warned_of -> Nullable<Timestamptz>,
        activity_count -> BigInt,
        installed_application_id -> Nullable<Uuid>,
    }
}

diesel::table! {
    session_specs (session_id) {
        org_id -> Uuid,
        session_id -> Uuid,
        command -> Nullable<Jsonb>,
        environment -> Nullable<Bytea>,
        options -> Nullable<Jsonb>,
        manifest -> Nullable<Jsonb>,
    }
}

diesel::table! {
    session_events (id) {
        id -> Uuid,
        org_id -> Uuid,
        session_id -> Uuid,
        agent_id -> Nullable<Uuid>,
        from_state -> Nullable<Text>,
        to_state -> Text,
        reason -> Nullable<Text>,
        generation -> BigInt,
        at -> Timestamptz,
        seq -> BigInt,
        xact -> BigInt,
    }
}

diesel::table! {
    commands (id) {
        id -> Uuid,
        org_id -> Nullable<Uuid>,
        agent_id -> Uuid,
        agent_handle -> Text,
        session_id -> Nullable<Uuid>,
        generation -> Nullable<BigInt>,
        action -> Text,
        payload -> Jsonb,
        sealed -> Nullable<Bytea>,
        status -> Text,
        error_message -> Nullable<Text>,
        result -> Nullable<Jsonb>,
        sent_epoch -> BigInt,
        deadline -> Timestamptz,
        created_at -> Timestamptz,
        sent_at -> Nullable<Timestamptz>,
        acknowledged_at -> Nullable<Timestamptz>,
        completed_at -> Nullable<Timestamptz>,
        seq -> BigInt,
    }
}

diesel::table! {
    users (id) {
        id -> Uuid,
        username -> Text,
        email -> Nullable<Text>,
        full_name -> Text,
        role -> Text,
        provider -> Text,
        active -> Bool,
        password_hash -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        last_login -> Nullable<Timestamptz>,
        github_id -> Nullable<BigInt>,
        avatar_url -> Nullable<Text>,
        home_org_id -> Nullable<Uuid>,
        deleted_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    organizations (id) {
        id -> Uuid,
        name -> Text,
        display_name -> Text,
        description -> Text,
        k8s_namespace -> Text,
        status -> Text,
        owner_user_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        idle_default_seconds -> Nullable<Integer>,
        idle_maximum_seconds -> Nullable<Integer>,
        duration_default_seconds -> Nullable<Integer>,
        duration_maximum_seconds -> Nullable<Integer>,
    }
}
