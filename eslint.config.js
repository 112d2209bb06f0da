import { defineConfig } from 'eslint/config'
import tseslint from 'typescript-eslint'

/**
 * What the compiler does not say: promises that nobody awaits, switches that forget a case, and the imports that project
 * references cannot refuse (docs/adr/0001-composite-projects.md).
 */
const SELF_REFERENCE = {
  regex: '^keyrise(?:/|$)',
  message: 'The package’s own name is for its users: import the room by a relative path, which the compiler checks.',
}
const BUILD_OUTPUT = {
  regex: '^\\.{1,2}/(?:.*/)?dist/',
  message: 'Import the source: build output escapes the compiler’s check.',
}
const NODE = {
  regex: `^(?:node:|(?:${['buffer', 'child_process', 'crypto', 'fs', 'http', 'net', 'os', 'path', 'worker_threads'].join('|')})(?:/|$))`,
  message: 'protocol/ does no I/O: take what touches the world as a parameter (protocol/ports.ts).',
}
const OTHER_ROOMS = {
  regex: '^(?:\\.\\./)+(?:bench|cli|enclave|faults|host|kms|platform|protocol|storage|test)(?:/|$)',
  message: 'Examples import what a user can: keyrise, keyrise/enclave, keyrise/kms, keyrise/faults.',
}

/** The same patterns for `import … from`, `export … from` and, which the core rule overlooks, `import(…)`. */
const refuseImports = (...patterns) => ({
  'no-restricted-imports': ['error', { patterns }],
  'no-restricted-syntax': [
    'error',
    ...patterns.map(({ regex, message }) => ({
      selector: `ImportExpression > Literal[value=/${regex.replaceAll('/', '\\/')}/]`,
      message,
    })),
  ],
})

export default defineConfig(
  { ignores: ['dist/'] },
  { linterOptions: { reportUnusedDisableDirectives: 'error' } },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/strict-boolean-expressions': ['error', { allowNullableBoolean: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      // `return refuse(…)` says in one line that nothing follows.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // `using _ = …` disposes of what nothing else names.
      '@typescript-eslint/no-unused-vars': ['error', { varsIgnorePattern: '^_', argsIgnorePattern: '^_' }],
      // Code points are what is wanted of a string.
      '@typescript-eslint/no-misused-spread': ['error', { allow: [{ from: 'lib', name: 'string' }] }],
      '@typescript-eslint/prefer-readonly': 'error',
      '@typescript-eslint/require-array-sort-compare': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // `Record<never, never>` says on purpose that a reply carries nothing.
      '@typescript-eslint/no-generated-empty-object-type': 'off',
      eqeqeq: 'error',
      'no-console': 'error',
      ...refuseImports(SELF_REFERENCE, BUILD_OUTPUT),
    },
  },
  { files: ['protocol/*.ts'], rules: refuseImports(SELF_REFERENCE, BUILD_OUTPUT, NODE) },
  { files: ['examples/**/*.ts'], rules: refuseImports(OTHER_ROOMS, BUILD_OUTPUT) },
  {
    // Node’s test runner awaits its tests itself.
    files: ['examples/starter/**/*.test.ts'],
    rules: {
      '@typescript-eslint/no-floating-promises': [
        'error',
        { allowForKnownSafeCalls: [{ from: 'package', name: 'test', package: 'node:test' }] },
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    // A stand-in for something asynchronous need not wait itself.
    rules: { ...refuseImports(BUILD_OUTPUT), '@typescript-eslint/require-await': 'off' },
  },
  {
    // Compiled, never run: most of it must not type-check.
    files: ['test/**/*types.ts'],
    rules: { '@typescript-eslint/no-unsafe-call': 'off', '@typescript-eslint/no-unsafe-return': 'off' },
  },
  {
    // These play the attacker, by whatever the language lets them.
    files: [
      'test/enclave/inside.ts',
      'test/enclave/target.enclave.ts',
      'test/host/outspoken.enclave.ts',
      'test/attack/keeper.ts',
      'test/platform/measured-string.test.ts',
    ],
    rules: {
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'no-console': 'off',
    },
  },
  {
    // They take hold of intrinsics, or take them away, before anybody else can: that is what these rules advise against.
    files: ['enclave/boot.ts', 'enclave/debug.ts', 'enclave/harden.ts', 'platform/image.ts', 'protocol/values.ts'],
    rules: {
      '@typescript-eslint/no-dynamic-delete': 'off',
      '@typescript-eslint/unbound-method': 'off',
      'no-console': 'off',
    },
  },
  {
    // Standard output is the interface here.
    files: [
      'cli/**/*.ts',
      'examples/**/*.ts',
      'bench/**/*.ts',
      'test/project/*.ts',
      'test/{attack,mutants,real,soak}/main.ts',
    ],
    rules: { 'no-console': 'off' },
  },
)
