CREATE OR REPLACE FUNCTION auth_writable_pipes(orgs uuid[], people uuid[], handles text[], names text[], needs text[])
RETURNS TABLE (place integer, source_id uuid, created_by uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 16 SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT w.place::integer, f.*
    FROM unnest(orgs, people, handles, names, needs) WITH ORDINALITY AS w (org, person, handle, name, needed, place)
    CROSS JOIN LATERAL (
        SELECT s.id, s.created_by FROM sources s
        JOIN pipe_streams p ON p.org_id = w.org AND p.source_id = s.id AND p.pipe = w.name AND p.incarnation IS NOT NULL
        WHERE s.org_id = w.org AND s.handle = w.handle
          AND CASE WHEN s.created_by = w.person OR w.needed = 'members' THEN true
                   WHEN w.needed IS NULL THEN false
                   ELSE EXISTS (SELECT 1 FROM source_rights(w.org, w.person) r WHERE r.source_id = s.id AND r.allows = w.needed) END
          AND NOT EXISTS (SELECT 1 FROM pipe_operations o WHERE o.org_id = w.org AND o.status = 'pending'
                          AND o.topic = replace(s.id::text, '-', '') || '_' || w.name)
        LIMIT 1) f;
END
$$;
