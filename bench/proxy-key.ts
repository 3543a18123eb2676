/** Key that the load generator sends and the data plane under test asks for. */
export const benchKey = 'bench-key-0123456789';
