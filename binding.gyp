# The CPU build through node-gyp -> build/Release/implex.node. Lists of files and flags come from sources.json (scripts/sources.mjs).
# Order matters when linking: of an inline function that several objects hold the linker keeps the first copy, so objects compiled
# without extra instructions come before those with them.
{
  'variables': {
    'napi_version': '<!(node -p "require(\'./package.json\').binary.napi_versions[0]")',
    'version': '<!(node -p "require(\'./package.json\').version")',
    'common_flags': ['<!@(node scripts/sources.mjs flags common)', '-fPIC'],
  },
  'target_defaults': {
    'include_dirs': ['native'],
    'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-fno-exceptions', '-fno-rtti'],
    'cflags_cc': ['<@(common_flags)'],
    'xcode_settings': {
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'GCC_ENABLE_CPP_RTTI': 'YES',
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'CLANG_CXX_LIBRARY': 'libc++',
      'MACOSX_DEPLOYMENT_TARGET': '11.0',
    },
  },
  'targets': [
    {
      'target_name': 'implex_kernels_baseline',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs files kernels)'],
      'defines': ['IMPLEX_KERNELS=baseline'],
      'variables': {'flags': ['<!@(node scripts/sources.mjs flags baseline)']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
    },
    {
      'target_name': 'implex_core',
      'type': 'static_library',
      'sources': ['<!@(node scripts/sources.mjs files core)'],
      'defines': ['IMPLEX_VERSION="<(version)"', 'IMPLEX_HAVE_BASELINE'],
      'variables': {'flags': ['<!@(node scripts/sources.mjs flags core)']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
      'conditions': [
        ['target_arch=="x64"', {'defines': ['IMPLEX_HAVE_AVX2', 'IMPLEX_HAVE_AVX512', 'IMPLEX_HAVE_AVX512BF16']}],
      ],
    },
    {
      'target_name': 'implex',
      'type': 'loadable_module',
      'sources': ['<!@(node scripts/sources.mjs files addon)'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'defines': [
        'IMPLEX_VERSION="<(version)"',
        'IMPLEX_BUILDER="node-gyp"',
        'NAPI_VERSION=<(napi_version)',
        'NODE_ADDON_API_CPP_EXCEPTIONS_ALL',
      ],
      'variables': {'flags': ['<!@(node scripts/sources.mjs flags core)']},
      'cflags_cc': ['<@(flags)'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
      'dependencies': ['implex_core', 'implex_kernels_baseline'],
      'conditions': [
        ['target_arch=="x64"', {
          'dependencies': ['implex_kernels_avx2', 'implex_kernels_avx512', 'implex_kernels_avx512bf16'],
        }],
        # nodelete: the pool's threads outlive the environment that loaded the addon, so it must never be unmapped.
        ['OS=="linux"', {'libraries': ['-ldl', '-pthread'], 'ldflags': ['-Wl,-z,nodelete']}],
      ],
    },
  ],
  'conditions': [
    ['target_arch=="x64"', {
      'targets': [
        {
          'target_name': 'implex_kernels_avx2',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.mjs files kernels)'],
          'defines': ['IMPLEX_KERNELS=avx2'],
          'variables': {'flags': ['<!@(node scripts/sources.mjs flags avx2)']},
          'cflags_cc': ['<@(flags)'],
          'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
        },
        {
          'target_name': 'implex_kernels_avx512',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.mjs files kernels)'],
          'defines': ['IMPLEX_KERNELS=avx512'],
          'variables': {'flags': ['<!@(node scripts/sources.mjs flags avx512)']},
          'cflags_cc': ['<@(flags)'],
          'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
        },
        {
          'target_name': 'implex_kernels_avx512bf16',
          'type': 'static_library',
          'sources': ['<!@(node scripts/sources.mjs files kernels)'],
          'defines': ['IMPLEX_KERNELS=avx512bf16'],
          'variables': {'flags': ['<!@(node scripts/sources.mjs flags avx512bf16)']},
          'cflags_cc': ['<@(flags)'],
          'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['<@(common_flags)', '<@(flags)']},
        },
      ],
    }],
  ],
}
